"""Baked models: converted where torch is, served where it isn't, from files that nobody writes."""

import json
import logging
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from process import run
from test_openvino import TEXTS, contrary, cut_short, tiny
from test_pairs import typed_bert
from tiny_embedders import save_encoder

from app.engines.base import Classifier, Embedder, OpenVinoOptions, Task
from app.engines.loader import load_engine
from app.engines.openvino import baked
from app.engines.openvino.failures import ConversionError, DisagreementError
from app.errors import EngineError, StartupError
from app.models.bake import bake
from app.models.catalog import Catalog, Limits, ModelSpec, read_catalog
from app.models.catalog_writing import write_catalog
from app.models.loading import ModelLoader
from app.models.sources import Sources
from app.models.verify import verify
from app.models.version_specs import VersionSpec
from app.settings import PACKAGED_MODELS_FILE

TORCHLESS = """
import json, pathlib, sys
for name in ("torch", "transformers", "peft"):
    sys.modules[name] = None  # "can't be had"
from app.engines.base import OpenVinoOptions
from app.models.catalog import read_catalog
from app.models.loading import ModelLoader
from app.models.sources import Sources
folder = pathlib.Path(sys.argv[1])
catalog = read_catalog(folder / "models.toml")
options = OpenVinoOptions(cache=folder / "none", cores=1, calls=1)
load = ModelLoader(Sources(folder / "none"), folder=folder, device="auto", threads=1,
    openvino=options)
engine = load(catalog.get("tiny")).engine
print(json.dumps(engine.classify(engine.encode(sys.argv[2:])).tolist()))
"""


def loader(folder: Path) -> ModelLoader:
    options = OpenVinoOptions(cache=folder / "cache", cores=1, calls=1)
    return ModelLoader(
        Sources(folder / "cache"), folder=folder, device="auto", threads=1, openvino=options
    )


def listing(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(file), file.stat().st_mtime_ns) for file in folder.rglob("*"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny classifier, a GGUF file, and a catalogue of both and of a fake."""
    folder = tmp_path_factory.mktemp("source")
    tiny(folder / "model")
    (folder / "chat.gguf").write_bytes(b"GGUF, copied and not read")
    (folder / "models.toml").write_text(
        '[[models]]\nname = "tiny"\nsource = "file:model"\nlimits = { max_tokens = 9 }\n'
        '[[models]]\nname = "talk"\ntask = "chat"\nsource = "file:chat.gguf"\nslots = 2\n'
        '[[models]]\nname = "dummy"\nengine = "fake"\nfake = { delay_ms = 5 }\n',
        encoding="utf-8",
    )
    return folder


@pytest.fixture(scope="module")
def baked_folder(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bake them; copy before a change."""
    folder = tmp_path_factory.mktemp("image") / "models"
    catalog = read_catalog(source / "models.toml")
    bake(catalog, folder, sources=Sources(source / "cache"), cores=1)
    return folder


@pytest.fixture
def copied(baked_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(baked_folder, tmp_path / "models"))


def load_tiny(folder: Path) -> Classifier:
    spec = read_catalog(folder / "models.toml").get("tiny")
    assert spec is not None
    engine = loader(folder)(spec).engine
    assert isinstance(engine, Classifier)
    return engine


def test_the_baked_catalogue_names_the_same_models_and_no_other_files(baked_folder: Path) -> None:
    tiny_one, talk, dummy = read_catalog(baked_folder / "models.toml").specs
    assert tiny_one == ModelSpec(
        name="tiny", source="file:tiny", engine="openvino", limits=Limits(max_tokens=9)
    )
    assert talk == ModelSpec(name="talk", task=Task.CHAT, source="file:talk/chat.gguf", slots=2)
    assert dummy == ModelSpec(name="dummy", engine="fake", fake={"delay_ms": 5})
    assert (baked_folder / "talk/chat.gguf").read_bytes() == b"GGUF, copied and not read"
    assert not [*baked_folder.rglob("*.safetensors")]
    assert baked_folder.stat().st_mode & 0o777 == 0o755


def test_a_baked_model_answers_as_torch_does_and_writes_nothing(
    baked_folder: Path, source: Path
) -> None:
    before = listing(baked_folder)
    engine = load_tiny(baked_folder)
    assert (engine.kind, engine.max_tokens) == ("openvino", 9)
    assert engine.labels == ("COLD", "MILD", "WARM")
    assert listing(baked_folder) == before
    spec = ModelSpec(name="tiny", source="file:model", engine="torch", limits=Limits(max_tokens=9))
    reference = loader(source)(spec).engine
    assert isinstance(reference, Classifier)
    expected = reference.classify(reference.encode(TEXTS))
    np.testing.assert_allclose(engine.classify(engine.encode(TEXTS)), expected, atol=0.03)


def test_a_baked_model_loads_where_there_is_no_torch(baked_folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TORCHLESS, baked_folder, *TEXTS[:2]],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
    )
    assert done.returncode == 0, done.stderr
    engine = load_tiny(baked_folder)
    expected = engine.classify(engine.encode(TEXTS[:2]))
    np.testing.assert_allclose(json.loads(done.stdout), expected, atol=0.005)


def test_its_version_is_the_source_s_and_outlives_a_build(
    baked_folder: Path, source: Path, tmp_path: Path
) -> None:
    """Documents are found by the version that embedded them: a deploy must not change it."""

    def versions(folder: Path) -> list[str]:
        load = loader(folder)
        specs = read_catalog(folder / "models.toml").specs[:2]
        return [load.request(spec)[1] for spec in specs]

    moved = Path(shutil.copytree(source, tmp_path / "moved", copy_function=shutil.copyfile))
    again = tmp_path / "models"
    bake(read_catalog(moved / "models.toml"), again, sources=Sources(tmp_path), cores=1)
    assert versions(again) == versions(baked_folder)
    (moved / "model/config.json").write_text(
        (moved / "model/config.json").read_text(encoding="utf-8") + "\n", encoding="utf-8"
    )
    shutil.rmtree(again)
    bake(read_catalog(moved / "models.toml"), again, sources=Sources(tmp_path), cores=1)
    assert versions(again)[0] != versions(baked_folder)[0]
    assert versions(again)[1] == versions(baked_folder)[1]


def test_a_package_s_version_is_kept(tmp_path: Path) -> None:
    packaged = read_catalog(PACKAGED_MODELS_FILE)
    spec = packaged.get("smollm2")
    assert spec is not None
    folder = tmp_path / "models"
    bake(Catalog([spec]), folder, sources=Sources(tmp_path), cores=1)
    (found,) = read_catalog(folder / "models.toml").specs
    assert loader(folder).request(found)[1] == loader(folder).request(spec)[1] == "0.1.2"


def forget_verdict(folder: Path) -> None:
    """Make this processor one that the model hasn't met."""
    for verdict in (folder / "tiny").glob("verdict-*.json"):
        verdict.unlink()


def test_on_another_processor_it_is_held_against_the_answers_that_it_brings(
    copied: Path, caplog: pytest.LogCaptureFixture
) -> None:
    forget_verdict(copied)
    before = listing(copied)
    with caplog.at_level(logging.INFO):
        load_tiny(copied)
    (line,) = (record for record in caplog.records if record.message == "model_compared")
    assert vars(line)["model"] == "tiny"
    assert vars(line)["labels_equal"] >= 0.99
    assert listing(copied) == before


def test_where_it_then_disagrees_it_does_not_serve(copied: Path) -> None:
    forget_verdict(copied)
    file = copied / "tiny" / baked.REFERENCE
    np.save(file, np.load(file)[:, ::-1])
    with pytest.raises(DisagreementError, match="score_difference_max"):
        load_tiny(copied)


def test_weights_that_were_damaged_are_not_served(copied: Path) -> None:
    cut_short(copied / "tiny")
    with pytest.raises(ConversionError, match="not as it was left"):
        load_tiny(copied)


@pytest.mark.parametrize("content", [b"", b"no array"])
def test_answers_that_were_damaged_are_no_proof(copied: Path, content: bytes) -> None:
    forget_verdict(copied)
    (copied / "tiny" / baked.REFERENCE).write_bytes(content)
    with pytest.raises(ConversionError, match=baked.REFERENCE):
        load_tiny(copied)


def test_what_openvino_answers_otherwise_is_not_baked(source: Path, tmp_path: Path) -> None:
    spec = read_catalog(source / "models.toml").get("tiny")
    assert spec is not None
    request, _ = loader(source).request(spec)
    with pytest.raises(DisagreementError, match="score_difference_max"):
        baked.bake(request, tmp_path / "tiny", load_reference=contrary)
    assert not baked.is_baked(tmp_path / "tiny")


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"source": "file:model", "engine": "torch"}, "engine 'torch' can't be baked"),
        ({"source": "file:model", "task": "chat"}, "has no .gguf file"),
        ({"source": "file:chat.gguf"}, "model 'one':"),
        ({"source": "file:nowhere"}, "there is no"),
        ({"source": "file:one.py:One", "engine": "python"}, "a class in a file can't be baked"),
    ],
)
def test_what_can_t_be_baked_is_named_and_leaves_nothing(
    source: Path, tmp_path: Path, entry: dict[str, str], says: str
) -> None:
    catalog = Catalog([ModelSpec.model_validate({"name": "one", **entry})], folder=source)
    with pytest.raises(StartupError, match=says):
        bake(catalog, tmp_path / "models", sources=Sources(tmp_path), cores=1)
    assert [*tmp_path.iterdir()] == []


def test_each_version_is_baked_and_the_entry_keeps_what_they_share(
    source: Path, tmp_path: Path
) -> None:
    path = source / "versions.toml"
    path.write_text(
        '[[models]]\nname = "tiny"\nsource = "file:model"\nlimits = { max_tokens = 9 }\n'
        "[models.rollback]\nerrors = 0.1\n"
        '[[models.versions]]\nversion = "1"\n'
        '[[models.versions]]\nversion = "2.b"\nshadow = true\nsource = "file:model"\n'
        '[[models]]\nname = "dummy"\nengine = "fake"\n'
        '[[models.versions]]\nversion = "1"\nfake = { delay_ms = 5 }\n',
        encoding="utf-8",
    )
    catalog = read_catalog(path)
    bake(catalog, tmp_path / "models", sources=Sources(tmp_path), cores=1)
    found, dummy = read_catalog(tmp_path / "models/models.toml").specs
    assert dummy == catalog.specs[1]
    assert (found.engine, found.source, found.limits.max_tokens) == ("openvino", None, 9)
    assert found.rollback == catalog.specs[0].rollback
    assert found.versions == (
        VersionSpec(version="1", source="file:tiny/1"),
        VersionSpec(version="2.b", source="file:tiny/2.b", shadow=True),
    )
    for one in found.loads:
        engine = loader(tmp_path / "models")(one).engine
        assert isinstance(engine, Classifier)
        assert engine.classify(engine.encode(TEXTS)).shape == (len(TEXTS), 3)


def test_versions_that_one_engine_can_t_serve_are_not_baked_together(
    source: Path, tmp_path: Path
) -> None:
    typed_bert(source / "ranker", num_labels=1)
    fields = {
        "name": "order",
        "task": Task.RANKING,
        "source": "file:ranker",
        "versions": [{"version": "1"}, {"version": "2", "source": "file:chat.gguf"}],
    }
    catalog = Catalog([ModelSpec.model_validate(fields)], folder=source)
    with pytest.raises(StartupError, match="'order': its versions can't be baked together"):
        bake(catalog, tmp_path / "models", sources=Sources(tmp_path), cores=1)


def test_a_folder_in_use_is_left_alone(source: Path) -> None:
    with pytest.raises(StartupError, match="is not empty"):
        bake(Catalog([]), source, sources=Sources(source), cores=1)


def test_a_folder_that_can_t_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "models"
    with pytest.raises(StartupError, match=r"models: (can't be written|is a file)"):
        bake(Catalog([]), folder, sources=Sources(tmp_path), cores=1)


def test_torch_is_not_asked_to_load_what_is_baked(baked_folder: Path) -> None:
    """A GPU changes nothing: there are no weights that torch reads."""
    spec = ModelSpec(name="tiny", source="file:tiny", engine="torch")
    with pytest.raises(EngineError):
        loader(baked_folder)(spec)
    request, _ = loader(baked_folder).request(spec.model_copy(update={"engine": "openvino"}))
    assert load_engine(request).kind == "openvino"


def test_openvino_s_weights_are_no_pickle_but_others_of_that_name_are(
    copied: Path, tmp_path: Path
) -> None:
    verify(copied / "tiny", {})
    (copied / "tiny" / baked.REFERENCE).unlink()
    with pytest.raises(StartupError, match="is a pickle"):
        verify(copied / "tiny", {})


def test_what_the_catalogue_says_of_an_embedder_is_baked_in(tmp_path: Path) -> None:
    save_encoder(tmp_path / "model")
    settings = {"pooling": ("cls",), "normalize": False, "prompts": {"query": "dog "}}
    spec = ModelSpec(
        name="tiny", task=Task.EMBEDDING, source="file:model", dimensions=8, **settings
    )
    loaded = loader(tmp_path)(spec.model_copy(update={"engine": "torch"})).engine
    bake(Catalog([spec], folder=tmp_path), tmp_path / "to", sources=Sources(tmp_path), cores=1)
    (entry,) = read_catalog(tmp_path / "to" / "models.toml").specs
    assert (entry.pooling, entry.normalize, entry.prompts, entry.dimensions) == ((), None, {}, None)
    engine = loader(tmp_path / "to")(entry).engine
    assert isinstance(engine, Embedder)
    assert isinstance(loaded, Embedder)
    assert engine.vector_rules == loaded.vector_rules
    expected = loaded.embed(loaded.encode(TEXTS, "dog "))
    np.testing.assert_allclose(engine.embed(engine.encode(TEXTS, "dog ")), expected, atol=0.05)
    with pytest.raises(EngineError, match="are baked in; remove them from the catalogue"):
        loader(tmp_path / "to")(entry.model_copy(update={"dimensions": 4}))


def test_a_catalogue_is_read_as_it_was_written(tmp_path: Path) -> None:
    specs = [
        ModelSpec(
            name="a.b-c_d",
            task=Task.CHAT,
            source='file:with "quotes" and \\backslashes',
            system_prompt="Zwei Zeilen,\r\nein Tab\t, Löschzeichen \x7f, \x00 und 🙂.",
            timeout_s=1.5,
            required=True,
        ),
        ModelSpec(
            name="second",
            labels=("ja", "nein"),
            sha256={"model.safetensors": "0" * 64},
            limits=Limits(max_batch=3),
            fake={"fail_on": "poison", "a key": True},
        ),
        ModelSpec(
            name="third",
            task=Task.EMBEDDING,
            pooling=("cls", "max"),
            normalize=False,
            prompts={"query": 'say "it": '},
            dimensions=8,
        ),
    ]
    write_catalog(specs, tmp_path / "models.toml")
    assert list(read_catalog(tmp_path / "models.toml").specs) == specs


def test_the_command_bakes_and_says_where(tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text('[[models]]\nname = "dummy"\nengine = "fake"\n')
    call = partial(run, tmp_path, models_file=tmp_path / "models.toml")
    done = call("models", "bake", "out")
    assert (done.returncode, done.stdout) == (0, "out/models.toml\n"), done.stderr
    again = call("models", "bake", "out")
    assert again.returncode == 1
    assert "is not empty" in again.stderr
    assert again.stdout == ""


def test_image_models_are_not_baked_and_the_line_says_why(tmp_path: Path) -> None:
    catalog = Catalog([ModelSpec(name="look", task="image-classification", source="file:look")])
    with pytest.raises(StartupError, match="'look': image models can't be baked"):
        bake(catalog, tmp_path / "models", sources=Sources(tmp_path), cores=1)
