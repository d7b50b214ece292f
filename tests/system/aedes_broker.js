// Aedes, an MQTT broker for Node.js, on the loopback interface. usage: node aedes_broker.js NODE_MODULES PORT
'use strict'

const [, , modules, port] = process.argv
const aedes = require(`${modules}/aedes`)()
require('node:net').createServer(aedes.handle).listen(Number(port), '127.0.0.1')
