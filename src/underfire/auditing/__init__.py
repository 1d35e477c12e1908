"""Planning an audit, running it, its rows on disk and the figures made from them."""
