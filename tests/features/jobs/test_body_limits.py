"""The bodies in which documents come have a limit of their own."""

from pathlib import Path

from httpx2 import AsyncClient, Response
from serving import serving
from test_schemas import check_problem


async def test_where_documents_come_in_bodies_have_a_limit_of_their_own(tmp_path: Path) -> None:
    headers = {"Content-Type": "application/json"}

    async def post(client: AsyncClient, path: str, size: int) -> Response:
        return await client.post(path, content=b"[" * size, headers=headers)

    async with serving(tmp_path, max_body_bytes=100, max_documents_bytes=1000) as client:
        exact = await post(client, "/documents", 1000)
        over = await post(client, "/documents", 1001)
        batch = await post(client, "/embed-batch", 1001)
        below = await client.request("DELETE", "/documents/a", content=b"[" * 101)
        elsewhere = await post(client, "/predict", 101)
    check_problem(exact, 400, "malformed_json")
    for answer, limit in ((over, 1000), (batch, 1000), (below, 100), (elsewhere, 100)):
        problem = check_problem(answer, 413, "body_too_large")
        assert problem["detail"] == f"The body is larger than {limit} bytes."
