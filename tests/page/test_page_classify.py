"""The tab Classify: one text as it is typed, and many as a list or a table."""

import csv
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Download, Page, expect
from process import Service, service
from test_cells import FORMULAS, PLAIN

from app.models.schemas import MAX_BATCH_TEXTS, MAX_TEXT_CHARS

PAUSED_MS = 1_000  # more than the page waits for the next letter


def answer(served: Service, text: str, **fields: Any) -> dict[str, Any]:
    body = {"text": text, "top_k": 5, **fields}
    got: dict[str, Any] = httpx2.post(f"{served.url}/predict", json=body, timeout=30).json()
    return got


def bars(page: Page, place: str = "#classify-bars") -> dict[str, str]:
    rows = page.locator(f"{place} .bar")
    names, values = rows.locator(".label"), rows.locator(".value")
    return dict(zip(names.all_inner_texts(), values.all_inner_texts(), strict=True))


def shown(scores: list[dict[str, Any]]) -> dict[str, str]:
    return {score["label"]: f"{score['score'] * 100:.1f} %" for score in scores}


def rows(page: Page) -> list[list[str]]:
    return [row.locator("td").all_inner_texts() for row in page.locator("#many-rows tr").all()]


def drop(page: Page, place: str, name: str, content: bytes) -> None:
    """Drop a file, as from the desktop."""
    dropped = page.evaluate_handle(
        """([name, bytes]) => {
            const dropped = new DataTransfer();
            dropped.items.add(new File([new Uint8Array(bytes)], name));
            return dropped;
        }""",
        [name, list(content)],
    )
    page.dispatch_event(place, "drop", {"dataTransfer": dropped})


def read_csv(download: Download, folder: Path) -> list[dict[str, str]]:
    file = folder / download.suggested_filename
    download.save_as(file)
    with file.open(encoding="utf-8-sig", newline="") as opened:
        return list(csv.DictReader(opened))


def test_the_answer_follows_the_typing(visiting: Any, served: Service) -> None:
    visit = visiting()
    field = visit.page.get_by_label("One text")
    for text in ("A good day", "A good day, all in all"):
        field.fill(text)
        scores = answer(served, text)["scores"]
        best = f"{scores[0]['label']}, {scores[0]['score'] * 100:.1f} %"
        expect(visit.page.locator("#classify-said")).to_have_text(best)
        assert bars(visit.page) == shown(scores)
    expect(visit.page.locator("#classify-count")).to_have_text("22 of 2,000 characters")


def test_typing_on_asks_once_it_pauses(visiting: Any) -> None:
    visit = visiting()
    visit.page.clock.install()
    visit.page.clock.pause_at(time.time() + 60)  # no pause of the machine's is one of the typist's
    visit.page.get_by_label("One text").press_sequentially("ten letters")
    with visit.page.expect_response("**/predict"):
        visit.page.clock.run_for(PAUSED_MS)
    assert [r.post_data_json["text"] for r in visit.sent("/predict")] == ["ten letters"]


def test_an_answer_that_comes_too_late_is_dropped(visiting: Any, served: Service) -> None:
    visit = visiting()
    visit.choose("slow")
    field = visit.page.get_by_label("One text")
    with visit.page.expect_request("**/predict"):
        field.fill("first")
    with visit.page.expect_event("requestfailed") as dropped:
        field.fill("second")
    assert dropped.value.post_data_json["text"] == "first"
    scores = answer(served, "second", model_name="slow")["scores"]
    expect(visit.page.locator("#classify-said")).not_to_be_empty()
    assert bars(visit.page) == shown(scores)


def test_a_text_that_is_too_long_is_not_sent(visiting: Any) -> None:
    visit = visiting()
    field = visit.page.get_by_label("One text")
    field.fill("😀" * (MAX_TEXT_CHARS + 1))
    expect(visit.page.locator("#classify-count")).to_have_text("2,001 of 2,000 characters")
    expect(field).to_have_attribute("aria-invalid", "true")
    with visit.page.expect_response("**/predict") as answered:
        field.fill("😀" * MAX_TEXT_CHARS)
    assert answered.value.status == 200
    assert len(visit.sent("/predict")) == 1


def test_a_list_becomes_a_table_with_a_distribution(visiting: Any, served: Service) -> None:
    visit = visiting()
    texts = ["one, with a comma", "two", "three"]
    visit.page.get_by_label("Many texts").fill("\n".join(texts) + "\n")
    visit.page.get_by_role("button", name="Classify 3 texts").click()
    expect(visit.page.locator("#many-said")).to_have_text("3 texts classified")
    labels = [answer(served, text)["label"] for text in texts]
    assert [row[:3] for row in rows(visit.page)] == [
        [str(place), text, label]
        for place, (text, label) in enumerate(zip(texts, labels, strict=True), 1)
    ]
    counts = {label: f"{labels.count(label)} ({labels.count(label) / 3:.1%})" for label in labels}
    found = bars(visit.page, "#many-bars")
    assert {label: text.replace(" %", "%") for label, text in found.items()} == counts


TABLE = """id,review,stars
1,"It said ""good"",
and it was",5
2,=1+1,4
3,poison,1
4,"",2
""".replace("\n", "\r\n")


def test_a_csv_that_is_dropped_comes_back_with_answers(
    visiting: Any, served: Service, tmp_path: Path
) -> None:
    visit = visiting()
    drop(visit.page, "#many", "reviews.csv", TABLE.encode())
    expect(visit.page.locator("#many-column option:checked")).to_have_text("review")
    visit.page.get_by_role("button", name="Classify 4 texts").click()
    expect(visit.page.locator("#many-said")).to_have_text("4 texts classified")
    with visit.page.expect_download() as downloading:
        visit.page.get_by_role("button", name="Download CSV").click()
    first, formula, failed, empty = read_csv(downloading.value, tmp_path)
    expected = answer(served, 'It said "good",\nand it was')
    assert first == {
        "id": "1",
        "review": expected["text"],
        "stars": "5",
        "label": expected["label"],
        "score": str(expected["score"]),
        "error": "",
        "truncated": "false",
    }
    assert formula["review"] == "'=1+1"  # a spreadsheet doesn't run it
    assert (failed["label"], failed["error"]) == ("", "inference_failed")
    assert empty["error"] == "text_empty"
    assert "not classified" in bars(visit.page, "#many-bars")


def test_ragged_rows_have_their_answers_in_the_right_columns(
    visiting: Any, served: Service, tmp_path: Path
) -> None:
    visit = visiting()
    ragged = b"id,text,stars\n1,long row,5,extra\n2,short row\n3,even row,1\n"
    drop(visit.page, "#many", "ragged.csv", ragged)
    expect(visit.page.locator("#many-wide")).to_have_text(
        "1 row has more cells than the first row: a text with commas needs quotes around it."
    )
    visit.page.get_by_role("button", name="Classify 3 texts").click()
    expect(visit.page.locator("#many-said")).to_have_text("3 texts classified")
    with visit.page.expect_download() as downloading:
        visit.page.get_by_role("button", name="Download CSV").click()
    expected = []
    for number, text, stars, extra in [
        ("1", "long row", "5", "extra"),
        ("2", "short row", "", ""),
        ("3", "even row", "1", ""),
    ]:
        got = answer(served, text)
        given = {"id": number, "text": text, "stars": stars, "column 4": extra}
        answers = {"label": got["label"], "score": str(got["score"]), "error": ""}
        answers["truncated"] = "false"
        expected.append({**given, **answers})
    assert read_csv(downloading.value, tmp_path) == expected
    visit.page.get_by_label("Many texts").fill("one")
    expect(visit.page.locator("#many-wide")).to_be_empty()


ONE_COLUMN = ["Good, really good", 'Bad; "so"']


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        ("semicolons.csv", b"a;text\n1;eins\n2;zwei\n", ["eins", "zwei"]),
        ("tabs.tsv", b"text\tn\neins\t1\nzwei\t2\n", ["eins", "zwei"]),
        ("windows.csv", "text,n\nschön,1\n".encode("cp1252"), ["schön"]),
        ("mark.csv", "text,n\nschön,1\n".encode("utf-8-sig"), ["schön"]),
        ("unnamed.csv", b"n,remark\n1,much longer\n", ["much longer"]),
        ("lines.txt", b"text, with comma\nother, too\n", ["text, with comma", "other, too"]),
        ("unicode.txt", "schön\nü\n".encode("utf-16"), ["schön", "ü"]),
        ("big.csv", b"\xfe\xff" + "n\ttext\n1\tschön".encode("utf-16-be"), ["schön"]),
        ("column.csv", b'review\nGood, really good\n"Bad; ""so"""', ONE_COLUMN),
        (
            "ragged.csv",
            b"id;text\n1;One, two\n2\n3;Two, three;more",
            ["One, two", "", "Two, three"],
        ),
        ("narrow.csv", b"n,text\n1,a;b;c\n2,d;e;f", ["a;b;c", "d;e;f"]),
    ],
)
def test_files_are_read_as_what_they_are(
    visiting: Any, tmp_path: Path, name: str, content: bytes, texts: list[str]
) -> None:
    visit = visiting()
    (tmp_path / name).write_bytes(content)
    visit.page.locator("#many-file").set_input_files(tmp_path / name)
    visit.page.get_by_role("button", name=f"Classify {len(texts)} text").click()
    expect(visit.page.locator("#many-said")).to_contain_text("classified")
    assert [row[1] for row in rows(visit.page)] == texts


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("paper.pdf", b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<< /Type /Catalog >>\nendobj\n"),
        ("zeros.csv", b"text,n\na\0b,1\n"),
        ("no mark.txt", "UTF-16 without a mark".encode("utf-16-le")),
        ("half.txt", b"\xff\xfea\x00b"),
        ("picture.txt", b"\x89PNG\r\n\x1a\n\x01\x02\x90"),
    ],
)
def test_a_file_that_is_no_text_is_refused(visiting: Any, name: str, content: bytes) -> None:
    visit = visiting()
    field = visit.page.get_by_label("Many texts")
    field.fill("typed before")
    drop(visit.page, "#many", name, content)
    expect(visit.page.locator("#many-problem").get_by_role("alert")).to_have_text(
        f"“{name}” doesn't look like text. If it is, save it as UTF-8."
    )
    expect(field).to_have_value("typed before")
    drop(visit.page, "#many", "text.txt", b"text")
    expect(field).to_have_value("text")
    expect(visit.page.locator("#many-problem")).to_be_empty()


def test_a_folder_that_is_dropped_is_refused(visiting: Any, tmp_path: Path) -> None:
    visit = visiting()
    (tmp_path / "folder").mkdir()
    visit.drop("#many", tmp_path / "folder")
    expect(visit.page.locator("#many-problem").get_by_role("alert")).to_have_text(
        "“folder” can't be read. Of a folder, take the files in it."
    )


def test_a_choice_of_no_file_changes_nothing(visiting: Any) -> None:
    visit = visiting()
    field = visit.page.get_by_label("Many texts")
    field.fill("typed before")
    visit.page.locator("#many-file").set_input_files([])
    expect(field).to_have_value("typed before")
    visit.check()  # nothing was thrown


def test_a_long_list_goes_in_batches_and_its_rest_waits_after_a_stop(visiting: Any) -> None:
    visit = visiting()
    count = 2 * MAX_BATCH_TEXTS + 10
    visit.page.get_by_label("Many texts").fill("\n".join(f"text {n}" for n in range(count)))
    visit.page.get_by_role("button", name="Classify 522 texts").click()
    expect(visit.page.locator("#many-said")).to_have_text("522 texts classified")
    sizes = [len(r.post_data_json["texts"]) for r in visit.sent("/predict-batch")]
    assert sizes == [MAX_BATCH_TEXTS, MAX_BATCH_TEXTS, 10]
    expect(visit.page.locator("#many-more")).to_contain_text("the CSV has all 522")

    visit.choose("slow")
    visit.page.get_by_role("button", name="Classify 522 texts").click()
    visit.page.get_by_role("button", name="Stop").click()
    expect(visit.page.get_by_role("button", name="Classify 522 texts")).to_be_enabled()


def test_answers_can_be_downloaded_after_the_field_has_changed(
    visiting: Any, tmp_path: Path
) -> None:
    visit = visiting()
    field = visit.page.get_by_label("Many texts")
    field.fill("one\ntwo")
    visit.page.get_by_role("button", name="Classify 2 texts").click()
    expect(visit.page.locator("#many-said")).to_have_text("2 texts classified")
    field.fill("three")
    visit.choose("slow")
    with visit.page.expect_download() as downloading:
        visit.page.get_by_role("button", name="Download CSV").click()
    assert [row["text"] for row in read_csv(downloading.value, tmp_path)] == ["one", "two"]


def test_a_file_that_is_too_large_for_a_page_is_refused(visiting: Any) -> None:
    visit = visiting()
    large = {"name": "large.txt", "mimeType": "text/plain", "buffer": b"line\n" * 1_000_001}
    visit.page.locator("#many-file").set_input_files(large)
    problem = visit.page.locator("#many-problem").get_by_role("alert")
    expect(problem).to_contain_text("over 5 MB")
    expect(visit.page.get_by_label("Many texts")).to_have_value("")


def test_the_page_knows_the_services_bounds(visiting: Any) -> None:
    visit = visiting()
    code = {
        name: httpx2.get(f"{visit.url}/static/page/{name}.js").text for name in ("models", "many")
    }
    assert f"MAX_CHARS = {MAX_TEXT_CHARS};" in code["models"]
    assert f"MAX_TEXTS = {MAX_BATCH_TEXTS};" in code["many"]


# Edges: blank lines, formulas and numbers, texts that are cut, no answer yet

LONG = "long " * 150  # characters, of which the fake model's window takes 512
BOUNDS = """
[[models]]
name = "short"
engine = "fake"
default = true
limits = { max_chars = 10 }

[[models]]
name = "long"
engine = "fake"
limits = { max_chars = 5000 }
"""


def classify(page: Page, count: int) -> None:
    page.get_by_role("button", name=f"Classify {count} text").click()
    expect(page.locator("#many-said")).to_contain_text("classified")


def downloaded(page: Page, folder: Path) -> list[dict[str, str]]:
    with page.expect_download() as downloading:
        page.get_by_role("button", name="Download CSV").click()
    return read_csv(downloading.value, folder)


def test_a_blank_line_has_its_row_in_the_table_and_the_csv(visiting: Any, tmp_path: Path) -> None:
    page = visiting().page
    page.get_by_label("Many texts").fill("good\n\n  \nbad\n")
    classify(page, 4)
    assert [row[1].strip() for row in rows(page)] == ["good", "", "", "bad"]
    assert [row[2] for row in rows(page)][1:3] == ["The text is empty."] * 2
    errors = [line["error"] for line in downloaded(page, tmp_path)]
    assert errors == ["", "text_empty", "text_empty", ""]


def test_a_blank_line_of_a_table_has_its_row_too(visiting: Any) -> None:
    page = visiting().page
    drop(page, "#many", "reviews.csv", b"\nid,text\n1,good\n\n2,bad\n")
    classify(page, 3)
    assert [row[1] for row in rows(page)] == ["good", "", "bad"]


def test_what_a_spreadsheet_would_run_is_disarmed_and_columns_of_numbers_stay(
    visiting: Any, tmp_path: Path
) -> None:
    page = visiting().page
    # A field of a page has line feeds for all ends of lines.
    formulas = [cell.replace("\r", "\n") for cell in FORMULAS]
    cells = [*formulas, *PLAIN]
    quoted = ['"' + cell.replace('"', '""') + '"' for cell in cells]
    lines = [f"{cell},{-0.5 * n},{'-1' if n else '-1+cmd'}\n" for n, cell in enumerate(quoted)]
    drop(page, "#many", "changes.csv", ("text,change,mixed\n" + "".join(lines)).encode())
    classify(page, len(cells))
    found = downloaded(page, tmp_path)
    assert [line["text"] for line in found] == [f"'{cell}" for cell in formulas] + PLAIN
    assert [float(line["change"]) for line in found] == [-0.5 * n for n in range(len(cells))]
    assert {line["mixed"] for line in found} == {"'-1+cmd", "'-1"}


def test_a_text_that_was_cut_says_so_in_words(visiting: Any) -> None:
    page = visiting().page
    page.get_by_label("One text").fill(LONG)
    expect(page.locator("#classify-cut")).to_have_text(
        "Only the beginning was read: the text is longer than the model's window"
    )
    page.get_by_label("Many texts").fill(f"short\n{LONG}")
    classify(page, 2)
    expect(page.locator("#many-said")).to_contain_text("of 1 only the beginning was read")
    assert ["text cut" in row[2] for row in rows(page)] == [False, True]
    page.get_by_label("One text").fill("short")
    expect(page.locator("#classify-cut")).to_be_empty()


def test_an_empty_tab_shows_no_winner(visiting: Any) -> None:
    page = visiting().page
    labels = page.locator("#classify-bars .label")
    expect(labels).to_have_count(3)
    weight = "label => getComputedStyle(label).fontWeight"
    assert labels.nth(0).evaluate(weight) == labels.nth(1).evaluate(weight)
    page.get_by_label("One text").fill("good")
    expect(page.locator("#classify-said")).not_to_be_empty()
    assert labels.nth(0).evaluate(weight) != labels.nth(1).evaluate(weight)


def test_the_longest_text_is_that_of_the_chosen_model(visiting: Any, tmp_path: Path) -> None:
    with service(tmp_path, BOUNDS) as running:
        running.wait_ready()
        page = visiting(running.url).page
        expect(page.locator("#classify-count")).to_have_text("0 of 10 characters")
        page.get_by_label("One text").fill("x" * 11)
        expect(page.locator("#classify-count")).to_have_text("11 of 10 characters")
        page.locator("#classify-model").select_option("long")
        expect(page.locator("#classify-count")).to_have_text("11 of 5,000 characters")
        expect(page.locator("#classify-said")).not_to_be_empty()
