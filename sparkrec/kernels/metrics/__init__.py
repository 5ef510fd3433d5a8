"""Metrics of recommendations, as pure functions on a batch of users.

`measures` has every metric of a user by its name, from these: `hits` finds where relevant items stand in lists;
`accuracy` has what follows from that; `scored` what follows from scores, `sampled` what places among sampled candidates
say of all; `lists` what follows from the lists and what is known of their items. Of all users together: `counts`, from
how often each item was recommended, `clicks`, from all rows of a split, `off_policy`, from logged events. `statistics`
says how sure a mean is.
"""
