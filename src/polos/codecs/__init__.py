"""Codecs that turn what is stored into something that only their owner reads.

```python
from polos.codecs import EncryptionCodec

client = PolosClient(codec=EncryptionCodec(keys=[key]))
```
"""

from polos.codecs.encryption import EncryptionCodec, generate_key
from polos.codecs.protocol import PayloadCodec

__all__ = ["EncryptionCodec", "PayloadCodec", "generate_key"]
