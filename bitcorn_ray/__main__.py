"""`python -m bitcorn_ray` is `bitcorn`."""

from bitcorn_ray.cli import main

if __name__ == "__main__":
    main()
