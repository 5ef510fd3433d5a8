"""Many rows in one: blocks and packed rows, as Arrow moves them."""
