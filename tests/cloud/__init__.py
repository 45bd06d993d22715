"""The cloud on one machine: what Amazon EC2 Auto Scaling is to our daemon, without an account.

moto answers the requests whose shape is all that matters. What it lacks (lifecycle hooks, alarms that fire, cooldowns,
zones, rights, instances that run) is modelled here, in front of it and below it, so that nothing is faked inside the
daemon: its real requests meet real answers, and its instances are network namespaces with an address, a metadata service
and a disk of their own.

    models/      what the services decide, pure: alarms, hooks, cooldowns, which instance goes
    wire/        requests and answers as bytes: AWS's query protocol
    *.py         the parts that have a clock, sockets, processes
    scenarios/   what must hold, one file each
    checks/      the harness's own tests
"""
