"""The configuration file of ``mailfront serve -c FILE``: what may stand in it, reading it, and what is dangerous."""
