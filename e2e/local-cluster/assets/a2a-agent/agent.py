"""The weather agent of `cargo demo`: an A2A 1.0 server made with the A2A SDK.

It always promises good weather. What matters is its card, at /.well-known/agent-card.json.
"""

import argparse

import uvicorn
from a2a.helpers import new_text_message
from a2a.server.agent_execution import AgentExecutor
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill
from starlette.applications import Starlette


class Weather(AgentExecutor):
    """Answers every message with one message."""

    async def execute(self, context, event_queue):
        await event_queue.enqueue_event(
            new_text_message("Sunny, 24 °C.", context_id=context.context_id)
        )

    async def cancel(self, context, event_queue):
        """Nothing runs that could be cancelled."""


def card(name: str, url: str) -> AgentCard:
    return AgentCard(
        name=name,
        description="Says what the weather is like in a city.",
        version="0.1.0",
        supported_interfaces=[
            AgentInterface(url=url, protocol_binding="JSONRPC", protocol_version="1.0"),
        ],
        capabilities=AgentCapabilities(streaming=False, push_notifications=False),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[
            AgentSkill(
                id="current-weather",
                name="Current weather",
                description="The weather in one city, now.",
                tags=["weather"],
                examples=["What is the weather like in Rome?"],
            ),
        ],
    )


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--port", type=int, required=True)
    arguments.add_argument("--name", required=True)
    arguments.add_argument("--url", required=True)
    given = arguments.parse_args()
    own_card = card(given.name, given.url)
    handler = DefaultRequestHandler(
        agent_executor=Weather(), task_store=InMemoryTaskStore(), agent_card=own_card
    )
    routes = create_agent_card_routes(own_card) + create_jsonrpc_routes(handler, "/")
    uvicorn.run(Starlette(routes=routes), host="127.0.0.1", port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
