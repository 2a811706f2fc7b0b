"""Search: one pass over stored rows, with scorers, top-k, rescoring, certified answers and forecasts."""
