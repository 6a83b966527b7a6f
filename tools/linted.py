"""A tool as lint sees it."""

from tools.lint import LintedTool
from tools.tool import Tool, may_repeat


def linted(tool: Tool, result_budget: int = 40_000) -> LintedTool:
    """`result_budget` is the gateway's, for endpoints without a limit of their own."""
    e = tool.endpoint
    return LintedTool(
        name=tool.name,
        description=tool.entry["description"],
        schema=tool.published.schema,
        operator_description=e.description,
        method=e.method,
        has_input_schema=bool(e.input_schema),
        result_limit=e.max_result_length or result_budget,
        result_delivery=e.result_delivery,
        timeout_seconds=e.timeout_seconds,
        max_retries=e.retry_config.max_retries,
        retry_statuses=e.retry_config.retry_on_status,
        idempotent=may_repeat(e),
        loosened=tool.published.warnings,
    )
