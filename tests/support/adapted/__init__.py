"""What tests of adapters share: a scripted model that speaks the providers' wires, and an agent of each adapter that asks it."""
