"""Action providers: each turns an agent's arguments into what the kernel judges, and acts on exactly that."""
