"""`python -m equivengine`."""

from equivengine.cli.main import main

if __name__ == "__main__":
    main()
