#!/usr/bin/env python3
"""A task runner in Python (Debian's python3-pika): takes tasks of the kind "count", tells each step and
ends with a result. AMQP_URL is the broker, as its user "runner". docs/PROTOCOL.md section 9 says why.
With PLAIN=1 it tells nothing but the result, without numbers: one small JSON object.
"""
import datetime, json, os, secrets, time, uuid

import pika

KIND = "count"
channel = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"])).channel()
channel.confirm_delivery()  # basic_publish returns when the event is stored, and raises when it is not
arguments = {"x-queue-type": "quorum", "x-dead-letter-exchange": "dead", "x-dead-letter-routing-key": "task"}
channel.queue_declare("tasks." + KIND, durable=True, arguments=arguments)
channel.queue_bind("tasks." + KIND, "tasks", KIND)
channel.basic_qos(prefetch_count=1)


def uuid7():
    return str(uuid.UUID(int=time.time_ns() // 10**6 << 80 | 7 << 76 | secrets.randbits(12) << 64 | 2 << 62 | secrets.randbits(62)))


def now():
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def events(task, attempt):
    """Returns tell(type, **body), which publishes the next event of a new run of the task."""
    run, seq, prev = uuid7(), 0, 0
    def tell(type, durable=True, last=False, **body):
        nonlocal seq, prev
        seq += 1
        headers = {"client_id": task["client_id"], "epoch": task["epoch"], "home": task["server_id"], "attempt": attempt,
                   "run_id": run, "seq": seq, "prev": prev, "durable": durable, "last": last}
        publish(task, {"client_id": task["client_id"], **body, "timestamp": now()}, type=type, headers=headers,
                delivery_mode=2 if durable else 1)
        prev = seq if durable else prev
    return tell


def publish(task, body, **properties):
    properties = pika.BasicProperties(content_type="application/json", correlation_id=task["task_id"], app_id="python", **properties)
    channel.basic_publish("utils", task["server_id"], json.dumps(body).encode(), properties, mandatory=True)


for method, properties, body in channel.consume("tasks." + KIND):
    task = json.loads(body)
    to = int(task["params"]["to"])
    if os.environ.get("PLAIN"):
        publish(task, {"client_id": task["client_id"], "task_id": task["task_id"], "value": {"counted": to}}, delivery_mode=2)
    else:
        tell = events(task, (properties.headers or {}).get("x-delivery-count", 0) + 1)
        tell("started", kind=KIND, runner="python", total_steps=to)
        for n in range(1, to + 1):
            tell("progress", durable=False, workflow_id=task["task_id"], status="running", current_step=n, total_steps=to, message=f"{n}")
            tell("step", workflow_id=task["task_id"], status="succeeded", current_step=n, total_steps=to, message=f"counted {n}")
        tell("result", last=True, value={"counted": to}, last_line=0)
    channel.basic_ack(method.delivery_tag)  # only now: the final event is stored
