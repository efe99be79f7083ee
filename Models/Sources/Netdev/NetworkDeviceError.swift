/// What a doorbell's descriptor may be refused with: never here.
package struct NetworkDeviceError: Error {}
