#!/usr/bin/env python3
"""Publishes to channels with Debian's python3-pika. AMQP_URL is the broker, as a user that may write there."""
import json, os

import pika

channel = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"])).channel()
channel.confirm_delivery()  # basic_publish returns when the broker has it


def publish(name, body, *channels, key=None):
    headers = {"key": key} if key else None  # of the messages with one key a later subscriber needs only the latest
    properties = pika.BasicProperties(content_type="application/json", type=name, headers=headers)
    for c in channels:
        channel.basic_publish("channels", c, json.dumps(body).encode(), properties)


publish("price", {"metal": "gold", "eur": 2871.5}, "prices", "prices.gold", key="gold")
