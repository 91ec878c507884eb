"""mailfront, the part that touches the world: drivers, front ends, plugins, backends and commands."""
