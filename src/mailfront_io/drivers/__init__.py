"""The drivers: each turns operations into the actions of one world (blocking, trio, asyncio)."""
