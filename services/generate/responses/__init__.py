"""OpenAI's Responses API: other shapes around the same answers as those of chat completions."""
