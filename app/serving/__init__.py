"""The served index: loading it, swapping in the next one, and falling back to an older one."""
