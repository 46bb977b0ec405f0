"""Snapshots on disk: immutable index directories, the one that is served, and the writer's lock.

    index_storage/
        CURRENT                   the id of the snapshot that is served
        writer.lock               locked while an index is written; says by whom
        writer.guard              locked for the moment in which that changes or is read
        snapshots/<id>/           complete and never changed again; its manifest.json is written last
        snapshots/.staging-<id>/  being written, or left over by a writer that died
        snapshots/.removing-<id>/ too old to keep

Readers take no lock. A crash at any point leaves the old index or the new one.
"""
