"""`synfer-rt studio`: a local page on which the action units of a face are moved by sliders.

The page sends its whole state with each request (`state.py`), so the server keeps only what is
costly to make again: loaded engines, photos (`photos.py`) and the latents that lead to them
(`making.py`). `controls.py` says which controls a bundle has, and `copying.py` writes a state as a
command, as Python and as a plan. `server.py` puts them behind a web server, whose requests
`origins.py` checks. What runs in the browser is in `page/`.
"""
