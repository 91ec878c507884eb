"""mailfront, the pure part: mail protocols as state machines that know no socket, clock or chance."""
