"""Drawing on the canvas: gestures of a hand become shapes, and shapes become steps.

From the bottom up: `pointer.py` (where the hand is), `gestures.py` (its way -> a shape, pure),
`vertices.py` and `handles.py` (geometry of editing, pure), `finishing.py` (a shape -> a step),
`tools.py` and `editing_tools.py` (what each tool does with the hand), `preview.py` and
`overlay.py` (what is seen meanwhile), `keys.py`, and `canvas.py` (mouse and pen on the canvas).
"""
