"""Which questions train: each filter names what it drops, and no row is lost.

A filter only changes the status of a question that was KEPT, so the first reason stays. What can be
said of a question and its chunk is decided when the question is made (`each.py`); what depends
on all the others, when the pairs are made (`together.py`), anew each time.

What people wrote is never judged by a machine. One thing can befall it: a question given for
training that repeats one given for testing doesn't train, or the test would flatter the model.

By default `unanswerable` is on: it alone did better than its error, in both seeds. `pointing`,
`verbatim` and `round_trip` are off: their changes lie within their errors. Both kinds of duplicates
did nothing for NDCG@10 either; they are on for what it can't show: they keep people's test
questions out of training. `judge` was not measured, and is off. The figures are in
`docs/results.md` ("Filters of questions").
"""
