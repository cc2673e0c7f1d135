"""References in SQL, so that a restart doesn't take new ones, and replicas have the same."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import delete, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.features.drift.counts import Counts
from app.features.drift.tables import REFERENCES
from app.features.drift.windows import Reference, Version

KEY = (REFERENCES.c.model, REFERENCES.c.version)


class ReferenceRepository:
    """References, within one transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session
        is_sqlite = session.get_bind().dialect.name == "sqlite"
        self._insert = sqlite.insert if is_sqlite else postgresql.insert

    def times(self) -> dict[Version, datetime]:
        """Return of which versions there are references, and since when."""
        rows = self._session.execute(select(*KEY, REFERENCES.c.taken_at)).all()
        return {Version(row.model, row.version): row.taken_at for row in rows}

    def read(self, versions: Iterable[Version]) -> dict[Version, Reference]:
        """Return the references of versions, as far as there are any that can be used."""
        query = select(REFERENCES).where(tuple_(*KEY).in_(list(versions)))
        found = {}
        for row in self._session.execute(query):
            counts = Counts.read(row.counts)
            if counts is not None:
                version = Version(row.model, row.version)
                found[version] = Reference(counts=counts, taken_at=row.taken_at)
        return found

    def keep(self, version: Version, reference: Reference) -> None:
        """Store a reference, unless another process has stored one that can be used."""
        if self.read([version]):
            return
        values = {"taken_at": reference.taken_at, "counts": reference.counts.as_dict()}
        insert = self._insert(REFERENCES).values(**version._asdict(), **values)
        self._session.execute(insert.on_conflict_do_update(index_elements=KEY, set_=values))

    def forget(self, model: str) -> None:
        """Delete the references of all versions of a model."""
        self._session.execute(delete(REFERENCES).where(REFERENCES.c.model == model))
