"""Prompts and dimensions of an embedder, over HTTP, are those of sentence-transformers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from httpx2 import AsyncClient
from libraries import library
from serving import FAKE_EMBEDDER, make_app, running, serve_instead
from test_schemas import check_problem
from tiny import TEXTS
from tiny_embedders import (
    ALONE,
    FLAGS,
    NORMALIZE,
    SETTINGS,
    both,
    dense,
    embedder,
    on_torch,
    pooled,
    save_encoder,
    write,
)

from app.engines.base import Embedder, EmbeddingOptions
from app.engines.openvino.agreement import answers

# What a request says, and the vectors that it should get.
Expected = tuple[Mapping[str, Any], Any]
PROMPTS = {"query": "the film : ", "passage": "a dog , ", "topic": "very long ", "none": ""}


async def embed(client: AsyncClient, texts: Sequence[str], **fields: Any) -> Any:
    answer = await client.post("/embed", json={"texts": texts, **fields})
    assert answer.status_code == 200, answer.text
    vectors = np.array(answer.json()["embeddings"])
    assert answer.json()["dimensions"] == vectors.shape[1]
    return vectors


async def check(tmp_path: Path, engine: Embedder, cases: Sequence[Expected], most: float) -> None:
    """See that requests get what is expected, together and alone, in both dialects."""
    app = make_app(tmp_path, FAKE_EMBEDDER)
    async with running(app) as client:
        serve_instead(app, engine)
        for fields, expected in cases:
            size = most * max(1.0, float(np.abs(expected).max()))
            together = await embed(client, TEXTS, **fields)
            alone = np.concatenate([await embed(client, [text], **fields) for text in TEXTS])
            body = {"model": "vectors", "input": list(TEXTS), **fields}
            data = (await client.post("/v1/embeddings", json=body)).json()["data"]
            openai = np.array([item["embedding"] for item in data])
            for found in (together, alone, openai):
                assert found.shape == expected.shape, fields
                assert np.abs(found - expected).max() <= size, fields


@pytest.mark.parametrize("default", [None, "topic", "query", "none"])
async def test_each_prompt_is_the_library_s(
    encoder: Path, tmp_path: Path, default: str | None
) -> None:
    folder = embedder(encoder, tmp_path / "model", pooled("mean_tokens"), NORMALIZE)
    write(folder / SETTINGS, {"prompts": PROMPTS, "default_prompt_name": default})
    expert, texts = library(folder), list(TEXTS)
    cases: list[Expected] = [
        ({}, expert.encode(texts)),
        ({"input_type": "query"}, expert.encode_query(texts)),
        ({"input_type": "document"}, expert.encode_document(texts)),
        *(({"prompt_name": n}, expert.encode(texts, prompt_name=n)) for n in PROMPTS),
        ({"prompt_name": "document"}, expert.encode(texts, prompt_name="document")),
    ]
    assert np.abs(cases[1][1] - cases[2][1]).max() > 0.1, "the prompts have to differ"
    for engine, most in both(folder):
        await check(tmp_path, engine, cases, most)


@pytest.mark.parametrize("mode", [*FLAGS, "mix"])
@pytest.mark.parametrize("tokens", [{"special": True}, {"special": False}])
async def test_a_prompt_that_is_not_pooled_is_left_out_of_every_pooling(
    tmp_path: Path, mode: str, tokens: dict[str, Any]
) -> None:
    encoder = save_encoder(tmp_path / "encoder", **tokens)
    kind, config = pooled(*(FLAGS[:3] if mode == "mix" else [mode]))
    folder = embedder(encoder, tmp_path / "model", (kind, config | {"include_prompt": False}))
    write(folder / SETTINGS, {"prompts": PROMPTS})
    expert, texts = library(folder), list(TEXTS)
    cases: list[Expected] = [
        ({"prompt_name": name}, expert.encode(texts, prompt_name=name)) for name in PROMPTS
    ]
    for engine, most in both(folder):
        await check(tmp_path, engine, cases, most)


def test_engines_are_compared_without_a_prompt_and_behind_one_that_is_not_pooled(
    encoder: Path, tmp_path: Path
) -> None:
    texts = ["good film", "the cat is long"]
    for includes in (True, False):
        kind, config = pooled("mean_tokens")
        module = (kind, config | {"include_prompt": includes})
        folder = embedder(encoder, tmp_path / f"model {includes}", module)
        prompts = {"query": "the film : ", "long": "good " * 40, "none": ""}
        write(folder / SETTINGS, {"prompts": prompts})
        engine = on_torch(folder)
        expected = engine.embed(engine.encode(texts))
        if not includes:
            behind = engine.embed(engine.encode(texts, prompts["query"]))
            expected = np.concatenate([expected, behind])
        np.testing.assert_allclose(answers(engine, texts), expected, atol=1e-5)


async def test_case_and_special_tokens_of_a_prompt_are_the_library_s(
    encoder: Path, tmp_path: Path
) -> None:
    folder = embedder(encoder, tmp_path / "model", pooled("mean_tokens"))
    cased = (folder / "tokenizer.json").read_text().replace('"type": "Lowercase"', '"type": "NFC"')
    (folder / "tokenizer.json").write_text(cased)
    write(folder / "sentence_bert_config.json", {"max_seq_length": 30, "do_lower_case": True})
    write(folder / SETTINGS, {"prompts": {"query": "THE [SEP] Film "}})
    expert = library(folder)
    cases: list[Expected] = [({"input_type": "query"}, expert.encode_query(list(TEXTS)))]
    assert np.abs(cases[0][1] - expert.encode(list(TEXTS))).max() > 0.1
    for engine, most in both(folder):
        await check(tmp_path, engine, cases, most)


@pytest.mark.parametrize("cut", [None, 8, 100])
@pytest.mark.parametrize("ends", [(NORMALIZE,), (), (dense(24), NORMALIZE)])
async def test_dimensions_are_the_library_s(
    encoder: Path, tmp_path: Path, cut: int | None, ends: Any
) -> None:
    folder = embedder(encoder, tmp_path / "model", pooled("cls_token"), *ends)
    write(folder / SETTINGS, {"truncate_dim": cut})
    expert, texts, is_unit = library(folder), list(TEXTS), NORMALIZE in ends
    cases: list[Expected] = [({}, expert.encode(texts))]
    for dimensions in (1, 8, 24):  # scaled again, as OpenAI's are, where the model's own are
        vectors = expert.encode(texts, truncate_dim=dimensions, normalize_embeddings=is_unit)
        cases.append(({"dimensions": dimensions}, vectors))
    assert np.abs(cases[0][1]).max() > 0.1
    for engine, most in both(folder):
        await check(tmp_path, engine, cases, most)


async def test_the_catalogue_says_what_a_plain_folder_doesn_t(
    encoder: Path, tmp_path: Path
) -> None:
    options = EmbeddingOptions(
        pooling=("cls", "mean"), normalize=False, prompts={"query": "good "}, dimensions=40
    )
    folder = embedder(encoder, tmp_path / "model", pooled("cls_token", "mean_tokens"))
    expert, texts = library(folder, prompts={"query": "good "}, truncate_dim=40), list(TEXTS)
    cases: list[Expected] = [
        ({}, expert.encode(texts)),
        ({"input_type": "query"}, expert.encode_query(texts)),
        ({"dimensions": 64}, expert.encode(texts, truncate_dim=64)),
    ]
    for engine, most in both(encoder, options):
        await check(tmp_path, engine, cases, most)


async def test_the_catalogue_s_prompts_and_scaling_come_before_a_folder_s(
    encoder: Path, tmp_path: Path
) -> None:
    folder = embedder(encoder, tmp_path / "model", pooled("max_tokens"))
    write(folder / SETTINGS, {"prompts": PROMPTS, "default_prompt_name": "query"})
    prompts = {"query": "dog ", "mine": "bad "}
    expert, texts = library(folder, prompts=prompts), list(TEXTS)
    cases: list[Expected] = [
        (fields, expert.encode(texts, prompt_name=name, truncate_dim=8, normalize_embeddings=True))
        for fields, name in (
            ({}, None),
            ({"prompt_name": "mine"}, "mine"),
            ({"prompt_name": "topic"}, "topic"),
        )
    ]
    engine = on_torch(folder, pooling=("max",), normalize=True, prompts=prompts, dimensions=8)
    await check(tmp_path, engine, cases, ALONE)


@pytest.mark.parametrize(
    ("ends", "options"),
    [((), {"normalize": True}), ((NORMALIZE,), {"dimensions": 4}), ((NORMALIZE,), {})],
)
async def test_the_catalogue_s_word_scales_what_the_folder_cuts(
    encoder: Path, tmp_path: Path, ends: Any, options: dict[str, Any]
) -> None:
    folder = embedder(encoder, tmp_path / "model", pooled("mean_tokens"), *ends)
    write(folder / SETTINGS, {"truncate_dim": 4, "similarity_fn_name": "dot"})
    expert = library(folder)
    expected = expert.encode(list(TEXTS), normalize_embeddings=bool(options))
    engine = on_torch(folder, **options)
    await check(tmp_path, engine, [({}, expected)], ALONE)
    without = on_torch(folder)
    is_changed = bool(options)
    assert (engine.vector_rules.edition != without.vector_rules.edition) is is_changed


async def test_a_text_of_nothing_but_its_prompt_is_refused_where_that_is_not_pooled(
    tmp_path: Path,
) -> None:
    encoder = save_encoder(tmp_path / "encoder", special=False)
    kind, config = pooled("mean_tokens")
    folder = embedder(encoder, tmp_path / "model", (kind, config | {"include_prompt": False}))
    write(folder / SETTINGS, {"prompts": {"query": "good dog "}})
    app = make_app(tmp_path, FAKE_EMBEDDER)
    async with running(app) as client:
        serve_instead(app, on_torch(folder))
        for texts in ([" "], ["cat", " "]):
            body = {"texts": texts, "input_type": "query"}
            check_problem(await client.post("/embed", json=body), 422, "text_without_tokens")


@pytest.mark.parametrize("path", ["/embed", "/v1/embeddings"])
async def test_what_a_model_hasn_t_is_refused_and_what_it_has_is_named(
    tmp_path: Path, path: str
) -> None:
    models = FAKE_EMBEDDER + 'prompts = { query = "q: " }\n'
    body = {"texts": ["x"]} if path == "/embed" else {"input": "x", "model": "vectors"}
    async with running(make_app(tmp_path, models)) as client:

        async def said(**fields: Any) -> tuple[int, str, str]:
            answer = await client.post(path, json=body | fields)
            error = answer.json().get("error") or answer.json()
            return answer.status_code, error["code"], error.get("message") or error["detail"]

        status, code, detail = await said(prompt_name="nobody")
        assert (status, code) == (400, "unsupported_field")
        assert "it has document, query" in detail
        status, code, detail = await said(dimensions=385)
        assert (status, code) == (400, "unsupported_field")
        assert "384 dimensions; 385 are too many" in detail
        status, code, _ = await said(prompt_name="query", input_type="query")
        assert (status, code) == (422 if path == "/embed" else 400, "invalid_request")
        for wrong in ({"dimensions": 0}, {"dimensions": "8"}, {"input_type": "passage"}):
            assert (await said(**wrong))[1] == "invalid_request", wrong


async def test_a_prompt_s_tokens_count(tmp_path: Path) -> None:
    models = FAKE_EMBEDDER + 'prompts = { query = "four" }\nlimits = { max_tokens = 10 }\n'
    async with running(make_app(tmp_path, models)) as client:
        body = {"model": "vectors", "input": ["123456", "1234567"], "input_type": "query"}
        usage = (await client.post("/v1/embeddings", json=body)).json()["usage"]
        body = {"texts": body["input"], "input_type": "query"}
        cut = (await client.post("/embed", json=body)).json()["truncated"]
    assert usage == {"prompt_tokens": 20, "total_tokens": 20}
    assert cut == [1]


async def test_a_prompt_without_a_name_is_not_the_default(tmp_path: Path) -> None:
    async with running(make_app(tmp_path, FAKE_EMBEDDER)) as client:
        answer = await client.post("/embed", json={"texts": ["x"], "prompt_name": ""})
    check_problem(answer, 400, "unsupported_field")


@pytest.mark.parametrize("path", ["/embed", "/v1/embeddings"])
async def test_a_prompt_that_leaves_no_room_is_refused_where_it_is_asked_for(
    tmp_path: Path, path: str
) -> None:
    models = (
        FAKE_EMBEDDER
        + 'prompts = { long = "1234567", fits = "123456" }\nlimits = { max_tokens = 10 }\n'
    )
    body = {"texts": ["x"]} if path == "/embed" else {"input": "x", "model": "vectors"}
    async with running(make_app(tmp_path, models)) as client:
        assert (await client.post(path, json=body | {"prompt_name": "fits"})).status_code == 200
        answer = await client.post(path, json=body | {"prompt_name": "long"})
    assert answer.status_code == 400
    assert "unsupported_field" in answer.text
    assert "no room for a text" in answer.text


@pytest.mark.parametrize("left", [0.0, 1e-30])
async def test_a_vector_of_which_nothing_is_left_is_an_error_of_its_text(
    tmp_path: Path, left: float
) -> None:
    app = make_app(tmp_path, FAKE_EMBEDDER)
    async with running(app) as client:
        scheduler = app.state.runtime.registry.model("vectors").entry.served.model
        embed_all = scheduler.engine.embed

        def zeros(batch: Any) -> Any:
            vectors = embed_all(batch)
            vectors[:, :4] = left
            return vectors

        scheduler._run = zeros
        answer = await client.post("/embed", json={"texts": ["a", "b"], "dimensions": 4})
    assert "texts[0]" in check_problem(answer, 500, "inference_failed")["detail"]
