from sparkrec.config import declaration, installed_kinds


def networks(sequences: bool) -> list[str]:
    """Kinds that torch trains, those that see the order of events or the others."""
    of_torch = [kind for kind in installed_kinds() if declaration(kind).module is not None]
    return [kind for kind in of_torch if (declaration(kind).settings().sequence_needs is not None) == sequences]
