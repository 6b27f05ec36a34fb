"""`python -m stillhouse` is `still`."""

from stillhouse.cli import main

if __name__ == "__main__":
    main()
