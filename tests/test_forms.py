"""Forms: files and fields as browsers and curl send them, and bodies that are none."""

import pytest

from app.errors import InvalidRequestError, MalformedFormError
from app.http.forms import boundary_of, read_form

pytestmark = pytest.mark.core


def form(*parts: tuple[str, bytes], end: bytes = b"--x--\r\n") -> bytes:
    """Return a form; each part is its disposition and its content."""
    head = b"--x\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n"
    return b"".join(head % (name.encode(), content) for name, content in parts) + end


def test_files_are_bytes_and_other_fields_texts() -> None:
    content = bytes(range(256)) + b"\r\n--y\r\n--\r\n"
    found = read_form(
        form(
            ('name="image"; filename="a.png"', content),
            ('name="model_name"', "größe".encode()),
            ('name="image"; filename=""', b""),
        ),
        b"x",
        8,
    )
    assert found == {"image": [content, b""], "model_name": ["größe"]}


def test_a_file_s_own_headers_are_not_taken_for_the_field_s() -> None:
    part = (
        b'--x\r\nContent-Type: image/png\r\nCONTENT-DISPOSITION: form-data; name="image";'
        b' filename="a"\r\nX-Other: name="z"\r\n\r\nabc\r\n--x--'
    )
    assert read_form(part, b"x", 8) == {"image": [b"abc"]}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no form",
        form(('name="a"', b"1"), end=b""),
        form(("", b"1")),
        form(('name="a"', b"\xff")),
        form(('filename="a"', b"1")),
        b'--y\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--y--\r\n',
    ],
)
def test_what_is_no_whole_form_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedFormError):
        read_form(body, b"x", 8)


def test_fields_are_bounded() -> None:
    many = form(*[(f'name="f{i}"', b"") for i in range(9)])
    with pytest.raises(InvalidRequestError):
        read_form(many, b"x", 8)
    assert len(read_form(many, b"x", 9)) == 9


def test_the_boundary_is_the_one_of_the_header() -> None:
    assert boundary_of('multipart/form-data; boundary="a b"') == b"a b"
    assert boundary_of("multipart/form-data; boundary=xyz; charset=utf-8") == b"xyz"
    assert boundary_of("multipart/form-data") is None
