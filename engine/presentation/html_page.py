"""Answers as one static page that needs nothing else: per query its prompt and completion, and a table of examples. Everything is
escaped. Knows no method and computes nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from ...store.json_values import JsonObject, ParsedJson
from ..results.answers_origin import EVERY_ORIGIN, Origin
from ..results.example_table import Columns
from ..results.printable import printable, printable_json
from ..results.result_files import SEVERAL, Fields, rows_of, starts_query

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; }
tr { border-top: 1px solid #ddd; } th { color: #666; font-weight: 500; } td.number { text-align: right; white-space: nowrap; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; } .prompt { color: #666; } summary { color: #666; cursor: pointer; }
h2 { margin: 2.5rem 0 .4rem; font-size: 1.1rem; } dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; }
dd { margin: 0; overflow-wrap: anywhere; } dt { color: #666; }
"""
_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{{ title or "answers" }} · headwater</title>
<style>STYLE</style>
</head>
<body>
<h1>Answers of headwater</h1>
{% for facts in origins %}<dl>{% for name, value in facts %}<dt>{{ name }}</dt><dd>{{ value }}</dd>{% endfor %}</dl>
{% endfor %}"""
_QUERY = """<h2>{{ id }}{% if method %} · {{ method }}{% endif %}</h2>
{% if prompt or completion -%}
<p class="text"><span class="prompt">{{ prompt }}</span><strong>{{ completion }}</strong></p>
{% endif -%}
"""
_TABLE = "<table>\n<thead><tr>{% for name in names %}<th>{{ name }}</th>{% endfor %}</tr></thead>\n<tbody>\n"
_ROW = """<tr>{% for value in values %}<td{% if value.number %} class="number"{% endif %}>{{ value.text }}</td>{% endfor -%}
{% if texts %}<td><div class="text">{{ completion }}</div>
{%- if prompt %}<details><summary>prompt</summary><div class="text prompt">{{ prompt }}</div></details>
{%- endif %}</td>{% endif -%}
</tr>
"""
_TAIL = """<script type="application/json" id="headwater">{{ origin }}</script>
</body>
</html>
"""
_TEXTS = ("completion", "prompt")
_ELSEWHERE = (*_TEXTS, "query_id", "query_prompt", "query_completion", "method", "store")


class HtmlPage:
    """A page that is open for writing: a section for each query, or one table of tables that have no query."""

    def __init__(self, path: Path, fields: Fields, origin: JsonObject) -> None:
        """`origin`: what the page says of the answers as a whole, or of those of each method."""
        environment = jinja2.Environment(autoescape=True, finalize=_shown)
        self._templates = {
            name: environment.from_string(text)
            for name, text in {
                "head": _HEAD.replace("STYLE", _STYLE),
                "query": _QUERY,
                "table": _TABLE,
                "row": _ROW,
            }.items()
        }
        self._names = [name for name in fields if name not in _ELSEWHERE]
        self._has_texts, self._by_query, self._origin = "completion" in fields, "query_id" in fields, origin
        self._file = path.open("w", encoding="utf-8")
        self._tables = 0
        self._several = SEVERAL in origin
        parsed: ParsedJson = dict(origin)
        origins = parsed.get(SEVERAL, [parsed])
        title = ", ".join(str(own["method"]) for own in origins if own)
        self._render("head", title=title, origins=[_facts(own) for own in origins])
        if not self._by_query:
            self._begin_table()

    def _render(self, template: str, **values: Any) -> None:
        self._file.write(self._templates[template].render(**values))

    def write(self, columns: Columns) -> None:
        """Append a table."""
        for row in rows_of(columns):
            if self._by_query and starts_query(row):
                self._end_table()
                texts = {"prompt": row.get("query_prompt"), "completion": row.get("query_completion")}
                self._render("query", id=row["query_id"], method=row["method"] if self._several else "", **texts)
                self._begin_table()
            values = [_cell(row[name]) for name in self._names]
            own = {name: row.get(name) for name in _TEXTS}
            self._render("row", values=values, texts=self._has_texts, **own)

    def _begin_table(self) -> None:
        self._tables += 1
        self._render("table", names=[*self._names, *(["completion"] if self._has_texts else [])])

    def _end_table(self) -> None:
        self._file.write("</tbody></table>\n" if self._tables else "")

    def close(self) -> None:
        """Write the end of the page, with the origin as data, and close the file."""
        self._end_table()
        data = printable_json(dict(self._origin)).replace("<", "\\u003c")
        self._file.write(_TAIL.replace("{{ origin }}", data))
        self._file.close()


def _shown(value: object) -> object:
    """A value as it is put into a template: text without control characters, nothing for None."""
    if value is None:
        return ""
    return printable(value) if type(value) is str else value


def _cell(value: object) -> dict[str, object]:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return {"number": is_number, "text": f"{value:.4f}" if isinstance(value, float) else value}


def _facts(origin: ParsedJson) -> list[tuple[str, str]]:
    """(name, value) of an origin: what every one says, then how its scores were derived."""
    if not origin:
        return []
    whole = Origin.from_json(origin)
    said = [(name, _fact(origin[name])) for name in EVERY_ORIGIN if name != "corpus"]
    return [*said, *whole.derivation()]


def _fact(value: object) -> str:
    return ", ".join(f"{key} {part}" for key, part in value.items()) if isinstance(value, dict) else str(value)
