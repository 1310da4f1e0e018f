"""`Asked`: what a page is asked for, as its address says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import urlencode

MAX_PAGE = 40
MAX_TEXT = 2_000


@dataclass(frozen=True)
class Asked:
    """What a page is asked for. Everything is in its address, so that going back works and an address can be kept.

    ============================== ==========================================================================
    ``text``, ``id``, ``image``    what to search by, one of them: words, an id, the key of an upload
    ``cluster``                    the number of a cluster to look through, where nothing is searched by
    ``where``                      an SQL condition
    ``column``, ``comparison``, ``value`` a filter, see `wscl_embed.serving.filters`
    ``page``                       from 1
    ============================== ==========================================================================

    >>> asked = Asked.from_query({"text": "red dress", "id": "7", "page": "2"})
    >>> asked.url(), asked.url(page=3), asked.only(cluster=1)
    ('/?text=red+dress&page=2', '/?text=red+dress&page=3', '/?cluster=1')
    """

    text: str = ""
    id: str = ""
    image: str = ""
    cluster: str = ""
    where: str = ""
    column: str = ""
    comparison: str = ""
    value: str = ""
    page: int = 1

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> Asked:
        """Read an address. Of several things to search by the text counts, then the image."""
        given: dict[str, Any] = {
            field.name: query.get(field.name, "")[:MAX_TEXT] for field in fields(cls) if field.name != "page"
        }
        given |= {name: given[name].strip() for name in ("text", "where")}
        searched = next((name for name in ("text", "image", "id", "cluster") if given[name]), "")
        for name in ("text", "image", "id", "cluster"):
            given[name] = given[name] if name == searched else ""
        if not given["column"]:
            given |= {"comparison": "", "value": ""}
        number = query.get("page", "1")
        page = int(number) if number.isascii() and number.isdigit() and len(number) < 6 else 1
        return cls(**given, page=min(max(1, page), MAX_PAGE) if searched in ("text", "image", "id") else max(1, page))

    @property
    def searches(self) -> bool:
        """Whether there is something to search by."""
        return bool(self.text or self.id or self.image)

    @property
    def filtered(self) -> bool:
        """Whether there is a condition or a filter."""
        return bool(self.where or self.column)

    def url(self, **changes: Any) -> str:
        """The address of this page, or of the first page of another."""
        wanted = replace(self, **({"page": 1} | changes if changes else {}))
        given = {field.name: str(getattr(wanted, field.name)) for field in fields(wanted)}
        query = urlencode({name: text for name, text in given.items() if text and (name, text) != ("page", "1")})
        return f"/?{query}" if query else "/"

    def only(self, **chosen: Any) -> str:
        """The address of a search by something else, under the same filter."""
        return self.url(**({"text": "", "id": "", "image": "", "cluster": ""} | chosen))
