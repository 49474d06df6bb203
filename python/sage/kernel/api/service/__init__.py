"""Services, as SAGE programs import them."""

from sage._services import BaseService
from sage._serving import PipelineBridge, PipelineRequest, PipelineService, PipelineServiceSink, PipelineServiceSource

__all__ = [
    "BaseService",
    "PipelineBridge",
    "PipelineRequest",
    "PipelineService",
    "PipelineServiceSink",
    "PipelineServiceSource",
]
