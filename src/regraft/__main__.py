"""`python -m regraft`: the command line, also under `torchrun -m`."""

from regraft.cli import main

main()
