"""`python -m synfer_rt` is the command `synfer-rt`."""

from synfer_rt.commands.cli import main

if __name__ == "__main__":
    main(prog_name="synfer-rt")
