"""One pass over stored rows: the loop, scorers, the best k, two stages, certified answers, forecasts."""
