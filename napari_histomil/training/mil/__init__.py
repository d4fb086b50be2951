"""Training models of whole slides: bags of features in, a model folder of task ``mil`` out.

The nets are in `nets/mil/`; here is what they learn from (`table.py`, `bags.py`), one fit
(`fit.py`), scores (`scores.py`), the whole of a training (`recipe.py`) and of a comparison
(`compare.py`).
"""
