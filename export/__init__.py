"""The build side: a diffusers checkpoint in, a bundle of ONNX engines out.

Needs PyTorch, diffusers, transformers and onnx (`pip install '.[export]'` in a clone); nothing of
the run side imports it, apart from the command line, which loads it when it is asked for.
"""
