"""Services over collections, as SAGE programs import them."""

from sage._memory_parallel import ParallelInsertResult, ParallelVDBService, parallel_insert_to_vdb

__all__ = ["ParallelInsertResult", "ParallelVDBService", "parallel_insert_to_vdb"]
