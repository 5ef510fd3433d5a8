"""Metrics of recommendations, as pure functions on a batch of users.

`hits` finds where relevant items stand in lists; `accuracy` has what follows from that; `lists` what follows from the
lists and what is known of their items; `counts` what follows from how often each item was recommended to anybody.
"""
