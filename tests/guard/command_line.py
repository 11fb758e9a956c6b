"""The command line as users have it, but that its workers watch their products: `python -m guard.command_line run recipe.yaml`."""

from compresslab.cli.main import main
from guard.emulation import watch_workers

if __name__ == "__main__":
    watch_workers()
    main()
