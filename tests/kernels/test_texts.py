"""Texts are found as a dictionary finds them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sparkrec.kernels.ragged import Ragged
from sparkrec.kernels.texts import located_texts


def packed(texts):
    data = [each.encode() for each in texts]
    lengths = np.array([len(each) for each in data], np.int64)
    return Ragged.of_lengths(lengths, np.frombuffer(b"".join(data), np.uint8))


@given(st.lists(st.text(max_size=4), unique=True), st.lists(st.text(max_size=4)))
def test_a_text_is_where_a_dictionary_has_it_or_nowhere(texts, others):
    data = [each.encode() for each in texts]
    order = np.array(sorted(range(len(data)), key=data.__getitem__), np.int32)
    places = {text: at for at, text in enumerate(texts)}
    sought = [*others, *texts]
    found = located_texts(packed(sought), packed(texts), order)
    assert found.tolist() == [places.get(each, -1) for each in sought]
