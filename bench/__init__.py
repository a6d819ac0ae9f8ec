"""Speed and size of Polos, each beside a raw limit of the same machine; see README.md."""
