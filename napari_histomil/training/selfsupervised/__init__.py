"""Learn an encoder from tissue without labels: two views of a place should say the same.

`pretrain.py` does the whole of it: configuration (`config.py`), unlabelled tiles (`tiles.py`),
their views (`views.py`), one of four methods (`simclr.py`, `byol.py`, `mocov3.py`, `dino.py`; what
they share is `method.py`) in one loop (`loop.py`, `checkpoint.py`), and a model folder of task
``embed`` (`folder.py`).
"""
