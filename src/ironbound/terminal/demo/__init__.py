"""The demo: the product's own parts in a minute's play, with the extras that it needs; none of it serves otherwise."""
