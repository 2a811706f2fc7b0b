"""Texts, ids, numbers and paths that a program easily fails at. Knows no command."""

from __future__ import annotations

TEXTS: tuple[str, ...] = (
    "", " ", "\n", "\0", "a\0b", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\u202eright to left", "\u200b", "\ufeff", "\ufffe",
    "a\r\nb\rc", "\x7f\x9b", "=cmd|' /C calc'!A0", "<script>alert(1)</script>", "[bold]markup[/bold]", "[/]", "{", "{text}",
    "{0.__class__}", "%s%n", "\\", '"', "🙂" * 300, "a" * 200_000, "ﷺ" * 2000, "e" + "\u0301" * 5000, "<s>", "<s>" * 50,
    "../../etc/passwd", "nan", "-0", "'; drop table x",
)  # fmt: skip
IDS: tuple[object, ...] = (
    "", " ", "a/../../b", "/etc/passwd", "..", "c1.jsonl:1", "a\nb", "a\tb", "\x1b[2J", "\u202e", "x" * 100_000, 0, -1, 1.5,
    True, None, [], {}, [1], {"a": 1}, 10**30, "\0", "é", "e\u0301", float("nan"), float("inf"), "a,b", '"', "1:2:3",
)  # fmt: skip
NUMBERS: tuple[str, ...] = (
    "-1", "0", "1", "2", "1.5", "-0", "nan", "inf", "-inf", "1e308", "1e-308", "1e999", "", " ", "abc", "0x10", "1_000", "٣",
    "²", "1e3", "+1", "2147483648", "9223372036854775808", "1" + "0" * 40, "-9223372036854775809", "\u202e1", "1\n2", "0.5",
    "1,5", "--help", "{}", "None",
)  # fmt: skip
PATHS = (
    "", ".", "..", "/", "/dev/null", "/dev/full", "/dev/zero", "/dev/stdin", "nowhere", "nowhere/x.jsonl", "model", "S",
    "S/zarr.json", "c1.jsonl", "c1.jsonl/x", "../outside", "~", "*", "**/*.jsonl", "[", "c1.jsonl,c2.jsonl", ",", "a" * 300,
    "a" * 5000, "http://localhost:1/x", "s3://bucket/x", "memory://x", "file:///etc/passwd", "out.jsonl",
    "out.csv", "out.parquet", "out.npy", "out.zarr", "out.json", "out", "\x1b[31m.jsonl", "-", "--", "model/config.json",
    "features.npz", "scores.zarr", "q.jsonl",
)  # fmt: skip
PIECES = (b"\xff\xfe", b"\xc3\x28", b"\0", b"\xed\xa0\x80", b"\r", b"\n\n\n", b"\x1a", b"\xef\xbb\xbf")
"""Bytes in the middle of a file."""
WHOLES = (b"", b"\n", b"\xef\xbb\xbf", b"\xff\xfe{\0", b"[", b"{}", b"null", b"[]", b"x" * 5_000_000, b"[" * 1_000_000)
"""Files that hold nothing else."""
