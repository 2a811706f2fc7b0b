"""Everything between files on disk and answers, in folders (*rooms*) with a strict import order, which ARCHITECTURE.md lists."""
