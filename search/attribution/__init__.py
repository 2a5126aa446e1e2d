"""What each component contributes to a task's metric, from a table, a study, or the trials of a search."""

from autoranger.search.attribution.effects import (
    Attribution,
    Effect,
    attribute,
    from_sample,
    from_study,
    from_table,
)

__all__ = ["Attribution", "Effect", "attribute", "from_sample", "from_study", "from_table"]
