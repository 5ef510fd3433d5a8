"""What a lake needs now and then: what is old goes, and who asks for it is forgotten."""
