"""The soak: attacks on the program and on its files, counted; `make soak` runs all of them."""
